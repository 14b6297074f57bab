"""From a snapshot's parts and a request to the nearest rows: plan, run, merge, under a deadline."""

"""What a database may take of its machine: memory, disk, processors."""

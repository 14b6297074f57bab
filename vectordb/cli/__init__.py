"""The command ``vectordb``: one file a subcommand, loaded when it is called."""

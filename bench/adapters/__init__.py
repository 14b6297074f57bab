"""This engine in other people's harnesses: files to lay into theirs, tested here by driving the protocol."""

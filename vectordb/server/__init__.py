"""The gRPC server around an engine: ``app.Server`` builds and runs it, ``config`` has its settings."""

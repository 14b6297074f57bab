"""Generated code of the wire protocol; the .proto files beside it are the source."""

"""Requests and answers as messages of ``vectordb.v1`` and back: the only reader and writer of message fields.

Server and client use the two directions of the same functions, ``x_to_message`` and ``x_from_message``. Nothing here
imports grpc, the engine, or an index library.

A message that cannot be a request (bytes that are not ``n * dim`` floats, a bitmap of the wrong length, an unknown
enum number) is an ``InvalidArgument`` that names the field. What a well-formed request may ask is the engine's to
check, so that every target refuses it alike.
"""

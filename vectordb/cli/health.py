"""``vectordb health``: whether a server serves, for probes of containers and load balancers."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="The server, or unix:/path.")] = "127.0.0.1:50051",
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds to wait for its answer.")] = 3.0,
    tls: Annotated[str | None, typer.Option(help="PEM file of the authority, for a server that speaks TLS.")] = None,
) -> None:
    """Exits 0 where the server is serving, 1 where it is starting, stopping or not there. Needs no API key."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from vectordb.errors import InvalidArgument, Unavailable
    from vectordb_client.targets import Kind, parse_target
    from vectordb_client.transport.channel import credentials

    target = parse_target(address)
    if target.kind is not Kind.SERVER:
        raise InvalidArgument(f"{address!r} is no server; write 'localhost:50051' or 'unix:/path'", field="address")
    authority = tls or target.tls
    if authority:
        channel = grpc.secure_channel(target.address, credentials(authority))
    else:
        channel = grpc.insecure_channel(target.address)
    with channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError as error:
            raise Unavailable(f"{address} does not answer: {error.code().name}", address=address) from None
    state = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    typer.echo(state.lower())
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise typer.Exit(1)

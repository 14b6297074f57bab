"""One file a system under measurement; all of them answer to :class:`bench.systems.base.System`."""

"""Sockets, disk, clock and terminal around the pure cores of `protocol`; decides nothing."""

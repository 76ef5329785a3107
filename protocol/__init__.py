"""The rules of Holdfast as pure code: no socket, no file, no clock, no random source.

Time and randomness are arguments. What this package decides, `node` performs and
`simulations` runs in a world of its own; imports point only towards here.
"""

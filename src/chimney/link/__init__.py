"""Packet I/O: frames in, frames out, in the size and with the help a NIC with segmentation and checksum offload would
give.

`base` says what a link is, `memory` is one for simulations, `packet` is one for Linux. Nothing else of the package is
known here.
"""

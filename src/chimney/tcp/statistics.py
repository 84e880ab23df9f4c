"""Counters of one connection."""


class Statistics:
    """Counters since construction. Segments are wire segments, bytes are payload bytes."""

    def __init__(self) -> None:
        self.segments_in = 0
        self.segments_out = 0
        """Retransmissions included."""
        self.data_segments_in = 0
        """With payload, in the window or before it."""
        self.data_segments_out = 0
        self.bytes_in = 0
        """Payload delivered in order."""
        self.bytes_out = 0
        """Payload sent for the first time."""
        self.retransmitted_segments = 0
        self.retransmitted_bytes = 0
        self.duplicate_acks = 0
        self.duplicates_reported = 0
        """Segments of ours of which the peer says that they had arrived before (RFC 2883)."""
        self.fast_retransmits = 0
        """Times that fast recovery was entered."""
        self.timeouts = 0
        self.spurious_recoveries = 0
        """Recoveries that were taken back, because nothing had been lost."""
        self.tail_probes = 0
        self.window_probes = 0
        self.keepalive_probes = 0
        self.out_of_order = 0
        self.duplicates = 0
        """Received segments of which nothing was new."""
        self.reassembly_drops = 0
        self.unacceptable = 0
        """Segments outside the window."""
        self.paws_drops = 0
        self.bad_acks = 0
        self.challenge_acks = 0
        self.acks_out = 0
        """Segments sent without payload and FIN."""
        self.resets_out = 0

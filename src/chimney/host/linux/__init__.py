"""The Linux kernel's side of a hand-over: taking a connection's state out of the kernel, and putting it back."""

"""The simulator: the whole stack in virtual time, over a network and drivers that misbehave, decided by one seed."""

"""The trusted side of a test: what a program must say to pass. Only codec.py and driver.py are sent inside."""

"""What bench/run.py is made of; doc/performance.md explains the method."""

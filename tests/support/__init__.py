"""The harness of the tests: real controllers, other people's programs, block devices, waiting."""

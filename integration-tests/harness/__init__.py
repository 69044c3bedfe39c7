"""What the integration tests stand on: a launched server, clients that show every byte, pictures, and a host for them.

Nothing here asserts what the product should do; that is said in the tests.
"""

"""The sandbox: everything outside the five services that a laptop needs, real and local."""

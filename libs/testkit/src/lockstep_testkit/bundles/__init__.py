"""Plans with all the evidence that there is of them, the same in every run: for the verifiers' vectors and for tests of what exports bundles."""

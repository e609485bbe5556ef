"""Records of escalations: what the coordinator says of them, on its way to the registry."""

"""Between protobuf and domain: the only modules of the coordinator that know both."""

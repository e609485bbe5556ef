"""The `lockstep` command, one module per group of subcommands."""

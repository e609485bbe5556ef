"""What every Lockstep service stands on: the shared rules (pure) and the shared shells (RPC, database, telemetry)."""

"""The dlt-gateway: locks tokens in the escrow at Prepare, pays them out at Commit, refunds them at Abort."""

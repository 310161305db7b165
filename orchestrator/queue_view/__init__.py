"""What the queue shows of itself, from the ledger alone: no Ray, and no controller need be alive."""

"""``python -m orchestrator`` is ``wattledger``."""

from orchestrator.cli import main

if __name__ == "__main__":
    main()

"""`python -m notary.witness`: see `acknowledging`."""

from __future__ import annotations

import sys

from notary.witness import acknowledging

sys.exit(acknowledging.main())

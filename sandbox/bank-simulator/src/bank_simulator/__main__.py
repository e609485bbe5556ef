"""`python -m bank_simulator --config FILE`."""

import sys

from bank_simulator.main import main

sys.exit(main())

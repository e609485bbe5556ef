"""`python -m lockstep_verify`."""

import sys

from lockstep_verify.command import main

sys.exit(main())

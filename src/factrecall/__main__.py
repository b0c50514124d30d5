"""`python -m factrecall`."""

from factrecall.cli import main

raise SystemExit(main())

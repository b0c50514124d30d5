"""`python -m factrecall`; a job of a local workflow hands itself to the fork server."""

import sys

from factrecall.runtime import fork_client

code = fork_client.run(sys.argv[1:])
if code is None:
    from factrecall.cli import main

    code = main()
raise SystemExit(code)

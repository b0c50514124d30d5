"""Attribution: which parts of a prompt a recalled fact depends on."""

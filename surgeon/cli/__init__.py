"""The command line, one file per verb: parse, call, print. Heavy imports happen inside the verbs."""

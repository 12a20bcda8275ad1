"""Commands of the command line that are not edits of the recipe."""

from __future__ import annotations

COMMANDS: dict[str, tuple[str, str]] = {
    "open": ("open [PATH]", "open a donor; without a path, choose from those nearby"),
    "close": ("close [B]", "close a donor that the recipe does not use"),
    "edit": ("edit [FILE]", "edit another recipe; without a file, choose a recent one"),
    "reload": ("reload", "read the recipe's file again"),
    "diff": ("diff [FILE|disk]", "what changed since it was saved, or against another recipe or the file on disk"),
    "log": ("log [FILE]", "the edits of this session, or write them as a script for the shell"),
    "replay": ("replay FILE", "make the edits of such a script again, on the donors that are open"),
    "yaml": ("yaml", "open the recipe in $EDITOR, and read it back as one edit"),
    "stage": ("stage [NAME|result]", "edit a stage of a recipe in stages, or its result"),
    "write": ("write [FILE]", "save the recipe"),
    "run": ("run OUT", "write the model to the folder OUT"),
    "jobs": ("jobs", "show the jobs, running and ended"),
    "try": ("try", "generate text"),
    "results": ("results", "everything that was tried or evaluated, with its recipe"),
    "plan": ("plan", "findings, YAML, difference"),
    "theme": ("theme dark|light|auto", "change the colours"),
    "picture": ("picture [FILE]", "write the screen to an SVG file"),
    "messages": ("messages", "the last messages, with the time"),
    "mouse": ("mouse on|off", "use the mouse, or leave it to the terminal"),
    "quit": ("quit", "leave"),
}
"""Name -> usage, help."""

TRY_COMMANDS: dict[str, tuple[str, str]] = {
    "system": ("system [TEXT]", "the system's message of a chat; without TEXT none"),
    "temperature": ("temperature T", "0 takes the likeliest token; above 0 samples"),
    "top_p": ("top_p P", "sample from the likeliest tokens that have this probability together"),
    "seed": ("seed N", "seed of sampling"),
    "n": ("n N", "most tokens of an answer"),
    "probe": ("probe FILE", "add a probe set, which s scores"),
    "text": ("text FILE", "add a text, which x measures the perplexity of"),
    "bundled": ("bundled NAME", "add bundled sets, which s scores: arithmetic, copying, knowledge, chat, all"),
    "history": ("history on|off", "keep what you try in the results file, or not"),
}
"""Commands of the prompt on the Try screen: name -> usage, help."""

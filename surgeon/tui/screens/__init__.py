"""The screens: surgery, plan, run, try, and the dialogs over them."""

"""Large files of ready lines, checked in a process of their own: this one goes on answering calls meanwhile."""

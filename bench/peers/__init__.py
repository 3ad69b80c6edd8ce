"""Those who run the race: each contender is a process of its own, driven round by round."""

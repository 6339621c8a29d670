"""What both programs do alike with the builds that they have: found, watched, told of, kept."""

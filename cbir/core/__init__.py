"""What every package stands on: errors, text, files, parallel work, progress, timing, parameters."""

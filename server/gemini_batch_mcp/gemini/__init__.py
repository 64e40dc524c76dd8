"""The only room that talks to Google: our values in, our values and our errors out."""

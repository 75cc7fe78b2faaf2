"""A listener to sit in front of: a page on this machine that sends camera and microphone, and is sent the reaction."""

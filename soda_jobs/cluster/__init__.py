"""What a run in a cluster does in Jobs besides its stages: look before it starts, report, and clean up."""

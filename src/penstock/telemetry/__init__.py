"""What happened: events, cells, waterfall; exporters are leaves."""

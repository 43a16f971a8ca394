module immortal-monitor-tally

go 1.19

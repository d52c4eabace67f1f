module soda.dev/probe

go 1.24

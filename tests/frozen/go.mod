module frozen

go 1.24

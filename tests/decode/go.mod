module oomwatch/decode

go 1.26.0

require (
	github.com/DataDog/agent-payload/v5 v5.0.215 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
)

-- Load for wrk: every request is the PUT of another file. Arguments: 1 token, 2 path of a template, 3 a name.
-- A file is the template with the number of the request before it.
local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(args)
  local file = assert(io.open(args[2], "rb"))
  template = file:read("*a")
  file:close()
  name = args[3]
  counter = 0
  wrk.method = "PUT"
  wrk.headers["Authorization"] = "Bearer " .. args[1]
  wrk.headers["Content-Type"] = "application/octet-stream"
end

function request()
  counter = counter + 1
  local id = string.format("%s-%d-%d", name, number, counter)
  return wrk.format(nil, "/attachments/v1/" .. id, nil, id .. template)
end

function done(summary, latency)
  io.write(string.format('RESULT {"requests":%d,"seconds":%.3f,"errors":%d,"p50":%.2f,"p95":%.2f,"p99":%.2f,"max":%.2f}\n',
    summary.requests, summary.duration / 1e6,
    summary.errors.status + summary.errors.read + summary.errors.write + summary.errors.timeout + summary.errors.connect,
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end

-- Load for wrk: every request is one snapshot with its envelope and a token.
-- Arguments: 1 token, 2 path of the template, 3 "new" | "tenth", 4 etag base, 5 first job, 6 jobs per thread.
local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(args)
  math.randomseed(os.time() * 7919 + number * 104729)
  local file = assert(io.open(args[2], "rb"))
  template = file:read("*a")
  file:close()
  mode, base = args[3], args[4]
  first, share = tonumber(args[5]), tonumber(args[6])
  before, after = template:match("^(.-)@ID@(.*)$")
  install = string.format("%08x-0000-4000-8000-%012x", math.random(0, 0xfffffff), os.time() * 16 + number)
  counter = 0
  wrk.method = "POST"
  wrk.path = "/jobs/v1/basicSync"
  wrk.headers["Authorization"] = "Bearer " .. args[1]
  wrk.headers["Content-Type"] = "application/json"
end

local function envelope(id, seq, at, known)
  local text = string.format('{"sync":{"installId":"%s","pushSeq":%d', id, seq)
  if known ~= "" then text = text .. string.format(',"base":"\\"%s\\""', known) end
  return text .. "}," .. at
end

function request()
  counter = counter + 1
  if mode == "new" then
    local id = string.format("%08x-%04x-4%03x-8%03x-%012x", math.random(0, 0xfffffff), math.random(0, 0xffff),
      math.random(0, 0xfff), math.random(0, 0xfff), number * 0x10000000 + counter)
    return wrk.format(nil, nil, nil, envelope(install, counter, before:sub(2) .. id .. after, ""))
  end
  local job = first + number * share + (counter - 1) % share
  local id = string.format("00000000-0000-4000-8000-%012x", job)
  local owner = string.format("10000000-0000-4000-8000-%012x", job)
  return wrk.format(nil, nil, nil, envelope(owner, 10, before:sub(2) .. id .. after, base))
end


function done(summary, latency)
  io.write(string.format('RESULT {"requests":%d,"seconds":%.3f,"errors":%d,"p50":%.2f,"p95":%.2f,"p99":%.2f,"max":%.2f}\n',
    summary.requests, summary.duration / 1e6,
    summary.errors.status + summary.errors.read + summary.errors.write + summary.errors.timeout + summary.errors.connect,
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end

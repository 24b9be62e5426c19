--[[
Restore exported photographs with maximir, beside their originals, and group them with these.

Copy this file into darktable's folder "lua", and add the line  require "maximir"  to its luarc:
~/.config/darktable on Linux and macOS, %LOCALAPPDATA%\darktable on Windows.
The storage "restore with maximir" then stands in the export module of the lighttable.
]]

local dt = require "darktable"

local NAME = "maximir"
local TASKS = { "auto", "denoise", "deblur", "derain", "dehaze", "enhance", "retouch", "dejpeg" }
local SUFFIXES = { tif = true, tiff = true, png = true, jpg = true, jpeg = true, webp = true, avif = true }
local WINDOWS = package.config:sub(1, 1) == "\\"
local SEPARATOR = WINDOWS and "\\" or "/"

dt.preferences.register(NAME, "command", "string", "maximir: command",
  "the command, with its path if it is not found without", "maximir")

local strength = dt.new_widget("slider") {
  label = "strength", tooltip = "0: the export as it is; 1: the restored photograph",
  soft_min = 0, soft_max = 1, hard_min = 0, hard_max = 1, value = 1,
}
local task = dt.new_widget("combobox") {
  label = "task", tooltip = "auto: what each photograph needs, or nothing", value = 2, table.unpack(TASKS),
}

local function quoted(text)
  if WINDOWS then return '"' .. text .. '"' end
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

-- Split a path into its folder, its name, and its suffix.
local function split(path)
  local folder, name = path:match("^(.*)[/\\]([^/\\]*)$")
  local stem, suffix = name:match("^(.*)%.([^.]*)$")
  return folder, stem, suffix
end

-- A name beside the original that no file has.
local function free_name(folder, stem, suffix, taken)
  local number, path = 1, nil
  repeat
    local ending = number == 1 and "" or "_" .. number
    path = folder .. SEPARATOR .. stem .. "_" .. task.value .. ending .. "." .. suffix
    number = number + 1
  until not (exists(path) or taken[path])
  taken[path] = true
  return path
end

-- The last line with words in a file: maximir's reason, if something failed.
local function last_line(path)
  local last = "see the terminal"
  local file = io.open(path, "r")
  if not file then return last end
  for line in file:lines() do
    if line:match("%a") then last = line end
  end
  file:close()
  return last
end

local function restore(exported, target, log)
  local words = {
    quoted(dt.preferences.read(NAME, "command", "string")), "restore", quoted(exported), "-o", quoted(target),
    "--task", task.value, "--strength", (string.format("%.2f", strength.value):gsub(",", ".")),
  }
  local command = table.concat(words, " ") .. " 2> " .. quoted(log)
  if WINDOWS then command = '"' .. command .. '"' end -- cmd takes the outer quotes away
  return dt.control.execute(command)
end

local function finalize(_, exports)
  local done, failed, taken, total = 0, 0, {}, 0
  for _ in pairs(exports) do total = total + 1 end
  for image, exported in pairs(exports) do
    local _, stem, suffix = split(exported)
    local target = free_name(image.path, stem, suffix, taken)
    local log = exported .. ".log"
    dt.print(string.format("maximir: %s, %d of %d", task.value, done + failed + 1, total))
    if restore(exported, target, log) == 0 then
      local restored = dt.database.import(target)
      if restored then restored:group_with(image.group_leader) end
      done = done + 1
    else
      failed = failed + 1
      dt.print_error(last_line(log))
      dt.print("maximir: " .. last_line(log))
    end
    os.remove(exported)
    os.remove(log)
  end
  if failed == 0 then dt.print(string.format("maximir: %d restored", done)) end
end

dt.register_storage(
  NAME, "restore with maximir", nil, finalize,
  function(_, format) return SUFFIXES[format.extension:lower()] end,
  nil, dt.new_widget("box") { orientation = "vertical", task, strength }
)

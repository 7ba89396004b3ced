/** The vendor's file, which the build puts beside this declaration; it defines `<stackone-hub>`. */
export {};
